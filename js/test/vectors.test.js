// Node gives the answers of tests/vectors, as Python does.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Rationalizer } from "../src/index.js";
import { bandOf, bundlePath, decoded, rowsOf } from "./vectors.js";

for (const name of ["text-fp32", "text-int8", "text-4bit", "image-fp32", "image-int8"]) {
  describe(name, () => {
    const [task, precision] = name.split("-");
    const rows = rowsOf(task);
    const answered = precision === "fp32" ? "run" : precision;
    /** @type {Rationalizer} */
    let rationalizer;
    let inputs;

    before(async () => {
      rationalizer = await Rationalizer.load(bundlePath(name));
      inputs = task === "text" ? rows.map((row) => row.text) : await Promise.all(rows.map((row) => decoded(row.name)));
    });
    after(() => rationalizer.close());

    test("masks are equal outside the band, labels everywhere, margins within it", async () => {
      const band = bandOf(rationalizer.manifest);
      let features = 0;
      for (const [i, prediction] of (await rationalizer.predict(inputs, { batchSize: 1 })).entries()) {
        const expected = rows[i][answered];
        assert.equal(prediction.label, expected.label, rows[i].name);

        const mask = prediction.mask.flat();
        assert.equal(mask.length, expected.mask.length, rows[i].name);
        expected.margins.forEach((margin, place) => {
          const drift = Math.abs(prediction.margins[place] - margin);
          assert.ok(drift <= band + 1e-6 * Math.abs(margin), `${rows[i].name}: a margin drifts by ${drift}`);
          if (Math.abs(margin) > band) assert.equal(mask[place], expected.mask[place], rows[i].name);
          features++;
        });
      }
      assert.ok(features > 500);
    });

    test("answers do not depend on the batch", async () => {
      const alone = await rationalizer.predict(inputs, { batchSize: 1 });
      const together = await rationalizer.predict(inputs, { batchSize: 16 });
      assert.deepEqual(together.map(({ label, mask }) => ({ label, mask })), alone.map(({ label, mask }) => ({ label, mask })));
    });
  });
}

test("ids, tokens and offsets are Python's", async () => {
  const rationalizer = await Rationalizer.load(bundlePath("text-int8"), { worker: false });
  const rows = rowsOf("text");
  const encoded = await rationalizer.encode(rows.map((row) => row.text));
  for (const [i, { name, ids, tokens, offsets, truncated }] of rows.entries()) {
    const found = encoded[i];
    assert.deepEqual({ ids: found.ids, tokens: found.tokens, offsets: found.offsets }, { ids, tokens, offsets }, name);
    assert.equal(found.truncated, truncated, name);
  }
});

test("spans are slices of the user's own string, and code points on request", async () => {
  const rationalizer = await Rationalizer.load(bundlePath("text-int8"));
  const text = "😀😀 A superb film 😀, dull too";
  const units = await rationalizer.predict(text);
  assert.ok(units.rationale.length);
  for (const span of units.rationale) assert.equal(text.slice(span.start, span.end), span.text);
  assert.ok(units.rationale.some((span) => span.text.includes("superb")));

  const points = await rationalizer.predict(text, { offsets: "codepoint" });
  const characters = [...text];
  for (const span of points.rationale) assert.equal(characters.slice(span.start, span.end).join(""), span.text);
  assert.deepEqual(points.rationale.map((span) => span.text), units.rationale.map((span) => span.text));
  assert.notEqual(points.rationale[0].start, units.rationale[0].start);
  rationalizer.close();
});
