// Whatever is wrong with a bundle or an input is one sentence and a code.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";

import { Rationalizer, RekdEdgeError } from "../src/index.js";
import { bundlePath } from "./vectors.js";

const made = mkdtempSync(path.join(tmpdir(), "rekd-edge-"));
after(() => rmSync(made, { recursive: true }));
let count = 0;

/** A copy of the text bundle that a test may damage. */
function copy(change = () => {}) {
  const folder = path.join(made, String(count++));
  cpSync(bundlePath("text-int8"), folder, { recursive: true });
  change((name) => path.join(folder, name));
  return folder;
}

/** Change the manifest and leave its seal away, as bundles of version 0.1 have none. */
function edited(change) {
  return copy((file) => {
    const fields = JSON.parse(readFileSync(file("manifest.json"), "utf-8"));
    delete fields.seal;
    change(fields);
    writeFileSync(file("manifest.json"), JSON.stringify(fields));
    rmSync(file("manifest.sha256"));
  });
}

/** @returns {(error: unknown) => boolean} */
const failing = (code, message) => (error) => {
  assert.ok(error instanceof RekdEdgeError);
  assert.match(error.message, message);
  assert.equal(error.code, code);
  return true;
};

for (const worker of [true, false]) {
  const where = worker ? "in a worker" : "without a worker";
  const rejects = (folder, code, message) => assert.rejects(Rationalizer.load(folder, { worker }), failing(code, message));

  test(`a bundle that is not there, ${where}`, async () => {
    await rejects(path.join(made, "nowhere"), "missing", /holds no manifest\.json; give the folder/);
    await rejects(copy((file) => rmSync(file("model.onnx"))), "missing", /model\.onnx is missing; copy/);
    await rejects(copy((file) => rmSync(file("manifest.sha256"))), "missing", /manifest\.sha256 is missing/);
  });

  test(`a file that was changed, ${where}`, async () => {
    const flip = (name) => (file) => {
      const content = readFileSync(file(name));
      content[content.length >> 1] ^= 1;
      writeFileSync(file(name), content);
    };
    await rejects(copy(flip("model.onnx")), "changed", /model\.onnx is not the file that was exported/);
    await rejects(copy(flip("tokenizer.json")), "changed", /tokenizer\.json is not the file/);
    await rejects(copy((file) => writeFileSync(file("model.onnx"), "short")), "changed", /has 5 bytes where/);
    const spaced = copy((file) => writeFileSync(file("manifest.json"), `${readFileSync(file("manifest.json"))} `));
    await rejects(spaced, "changed", /manifest\.json is not the file/);
  });

  test(`a manifest that cannot be read here, ${where}`, async () => {
    await rejects(edited((fields) => (fields.schema_version = 2)), "schema", /schema version 2 and .* up to 1; upgrade/);
    await rejects(edited((fields) => delete fields.schema_version), "schema", /states no schema_version/);
    await rejects(edited((fields) => (fields.labels = "neg")), "schema", /labels must be strings/);
    await rejects(edited((fields) => (fields.task = "audio")), "schema", /task is "audio"/);
    await rejects(copy((file) => writeFileSync(file("manifest.json"), "{")), "schema", /not valid JSON/);
  });
}

test("a bundle without a seal, as version 0.1 wrote it, opens", async () => {
  const rationalizer = await Rationalizer.load(edited(() => {}));
  assert.equal((await rationalizer.predict("a superb film")).label, "pos");
  rationalizer.close();
});

test("special tokens of an old tokenizer file are text in texts", async () => {
  const old = edited((fields) => delete fields.files["tokenizer.json"].sha256);
  const file = path.join(old, "tokenizer.json");
  const tokenizer = JSON.parse(readFileSync(file, "utf-8"));
  tokenizer.added_tokens = ["[CLS]", "[SEP]"].map((content) => ({
    id: tokenizer.model.vocab[content], content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true,
  }));
  const content = JSON.stringify(tokenizer);
  writeFileSync(file, content);
  const manifest = path.join(old, "manifest.json");
  const fields = JSON.parse(readFileSync(manifest, "utf-8"));
  fields.files["tokenizer.json"] = { size: Buffer.byteLength(content), sha256: "0".repeat(64) };
  writeFileSync(manifest, JSON.stringify(fields));

  const [ours, neutral] = await Promise.all(
    [old, bundlePath("text-int8")].map((folder) => Rationalizer.load(folder, { verify: false, worker: false })),
  );
  const text = ["a [SEP] b [CLS]"];
  assert.deepEqual(await ours.encode(text), await neutral.encode(text));
});

test("inputs of the wrong kind", async () => {
  const text = await Rationalizer.load(bundlePath("text-int8"));
  const image = await Rationalizer.load(bundlePath("image-int8"));
  const pixels = { data: new Uint8Array(12), width: 2, height: 2 };

  await assert.rejects(text.predict(3), failing("input", /is a number, not a text/));
  await assert.rejects(text.predict([["nested"]]), failing("input", /is an array, not a text/));
  await assert.rejects(text.predict(() => "text"), failing("input", /cannot be sent to the worker/));
  await assert.rejects(text.predict("a", { batchSize: 0 }), failing("input", /batchSize is 0/));
  await assert.rejects(text.predict("a ".repeat(100), { truncate: false }), failing("input", /reads 64 tokens/));
  assert.equal((await text.predict("a ".repeat(100))).truncated, true);

  await assert.rejects(image.predict("photo.png"), failing("input", /classifies images, not texts/));
  await assert.rejects(image.encode(["text"]), failing("input", /classifies images/));
  await assert.rejects(image.predict({ ...pixels, data: [1, 2, 3] }), failing("input", /with bytes as data/));
  await assert.rejects(image.predict({ ...pixels, width: 0 }), failing("input", /width and a height/));
  await assert.rejects(image.predict({ ...pixels, width: 5 }), failing("input", /12 bytes are no image of 5 x 2/));
  await assert.rejects(image.predict({ ...pixels, width: 1e9 }), failing("input", /too large/));
  assert.equal((await image.predict(pixels)).mask.length, 8); // a failed call leaves the bundle open

  await assert.rejects(Rationalizer.load(7), failing("input", /address or the folder/));
  await assert.rejects(Rationalizer.load(bundlePath("text-int8"), { threads: 0 }), failing("input", /threads is 0/));
  text.close();
  image.close();
});

test("a closed rationalizer rejects what waits and what comes", async () => {
  const rationalizer = await Rationalizer.load(bundlePath("text-int8"));
  const waiting = rationalizer.predict("a superb film");
  rationalizer.close();
  await assert.rejects(waiting, failing("failed", /was closed/));
  await assert.rejects(rationalizer.predict("a"), failing("failed", /was closed/));
});

test("a bundle opens from an address, and a server's failure is named", async () => {
  const server = createServer((request, response) => {
    if (request.url?.startsWith("/broken/")) return response.writeHead(500).end();
    try {
      return response.end(readFileSync(path.join(bundlePath("text-int8"), path.basename(request.url ?? ""))));
    } catch {
      return response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const rationalizer = await Rationalizer.load(`http://127.0.0.1:${port}/bundle`);
  assert.equal((await rationalizer.predict("a superb film")).label, "pos");
  rationalizer.close();

  await assert.rejects(Rationalizer.load(`http://127.0.0.1:${port}/broken`), failing("missing", /status 500/));
  server.close();
  server.closeAllConnections();
  await assert.rejects(Rationalizer.load(`http://127.0.0.1:${port}/bundle`), failing("missing", /cannot be reached/));
});

test("possible labels are those that reach the stated threshold, and a bundle without one says so", async () => {
  const labels = async (threshold) => {
    const stating = await Rationalizer.load(edited((fields) => (fields.conformal = { coverage: 0.9, threshold, rows: 100 })), { worker: false, verify: false });
    return stating.possibleLabels(await stating.predict("a superb film"));
  };
  const plain = await Rationalizer.load(bundlePath("text-int8"), { worker: false });
  const { label, scores } = await plain.predict("a superb film");

  assert.deepEqual(await labels(0), plain.manifest.labels);
  assert.deepEqual(await labels(scores[label]), [label]);
  assert.deepEqual(await labels(1), []);
  assert.throws(() => plain.possibleLabels({ scores }), failing("input", /states no coverage/));
});
