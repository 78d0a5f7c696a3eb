// Time explained predictions of one text each, and those of a black box in transformers.js.
//
//     node scripts/latency.js node|chromium BUNDLE < texts.json
//     node scripts/latency.js node|chromium BLACK_BOX --transformers < texts.json
//
// BLACK_BOX is a folder as Optimum writes it. Prints the milliseconds of every prediction, from the text to the answer, as a
// JSON array; one thread; each text is predicted once to warm up.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { Rationalizer } from "../src/index.js";
import { launch, serve, skip } from "../test/browser.js";

const REPEATS = 5;
const modules = fileURLToPath(new URL("../node_modules/", import.meta.url));
const [, , where, folder, kind] = process.argv;
const texts = JSON.parse(readFileSync(0, "utf-8"));

/** The time of every call, the first round apart. Runs in Node and, by its source, in the page. */
async function timed(predict, given, repeats) {
  const times = [];
  for (let turn = 0; turn <= repeats; turn++) {
    for (const text of given) {
      const started = performance.now();
      await predict(text);
      if (turn) times.push(performance.now() - started);
    }
  }
  return times;
}

async function oursInNode() {
  const rationalizer = await Rationalizer.load(folder);
  return timed((text) => rationalizer.predict(text), texts, REPEATS);
}

async function blackBoxInNode() {
  const { AutoModelForSequenceClassification, AutoTokenizer, env } = await import("@huggingface/transformers");
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(path.resolve(folder));
  const name = path.basename(folder);
  const options = { subfolder: "", dtype: "fp32", model_file_name: "model_quantized", session_options: { intraOpNumThreads: 1 } };
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModelForSequenceClassification.from_pretrained(name, /** @type {any} */ (options));
  return timed(async (text) => (await model(tokenizer(text, { truncation: true }))).logits.data[0], texts, REPEATS);
}

async function oursInChromium() {
  const server = await serve(folder);
  const times = await inPage(server.address, async ([given, repeats]) => {
    const { Rationalizer } = await import(`${location.href}rekd-edge/index.js`);
    const opened = await Rationalizer.load("./bundle/");
    return globalThis.timedByTest((text) => opened.predict(text), given, repeats);
  });
  server.stop();
  return times;
}

async function blackBoxInChromium() {
  const places = {
    "/transformers/": path.join(modules, "@huggingface/transformers/dist/"),
    "/ort/": path.join(modules, "@huggingface/transformers/node_modules/onnxruntime-web/dist/"),
    "/models/box/": `${path.resolve(folder)}/`,
  };
  const types = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
  const server = createServer((request, response) => {
    const name = request.url ?? "/";
    const place = Object.keys(places).find((each) => name.startsWith(each));
    if (name === "/") return response.setHeader("Content-Type", "text/html").end("<!doctype html><title>black box</title>");
    try {
      const file = path.join(places[place], name.slice(place.length));
      response.setHeader("Content-Type", types[path.extname(file)] ?? "application/octet-stream").end(readFileSync(file));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());

  const times = await inPage(`http://127.0.0.1:${port}/`, async ([given, repeats]) => {
    const { AutoModelForSequenceClassification, AutoTokenizer, env } = await import(`${location.href}transformers/transformers.min.js`);
    env.allowRemoteModels = false;
    env.allowLocalModels = true;
    env.localModelPath = "/models/";
    env.backends.onnx.wasm.wasmPaths = `${location.href}ort/`;
    env.backends.onnx.wasm.numThreads = 1;
    const options = { subfolder: "", dtype: "fp32", model_file_name: "model_quantized", device: "wasm" };
    const tokenizer = await AutoTokenizer.from_pretrained("box");
    const model = await AutoModelForSequenceClassification.from_pretrained("box", options);
    return globalThis.timedByTest(async (text) => (await model(tokenizer(text, { truncation: true }))).logits.data[0], given, repeats);
  });
  server.close();
  server.closeAllConnections();
  return times;
}

/** Run a function in a fresh page, where `timed` is `timedByTest`. */
async function inPage(address, work) {
  if (skip) throw new Error(skip);
  const browser = await launch();
  const page = await browser.newPage();
  await page.addInitScript(`globalThis.timedByTest = ${timed.toString()}`);
  await page.goto(address);
  const times = await page.evaluate(work, [texts, REPEATS]);
  await browser.close();
  return times;
}

const black = kind === "--transformers";
const ask = where === "chromium" ? (black ? blackBoxInChromium : oursInChromium) : black ? blackBoxInNode : oursInNode;
process.stdout.write(JSON.stringify(await ask()));
process.exit();
