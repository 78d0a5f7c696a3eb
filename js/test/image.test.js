// Pixels are Pillow's, byte for byte.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Rationalizer } from "../src/index.js";
import { modelPixels } from "../src/image.js";
import { bundlePath, decoded, rowsOf } from "./vectors.js";

const { manifest } = await Rationalizer.load(bundlePath("image-fp32"), { worker: false });

test("every image of the vectors is resized as Pillow does it", async () => {
  for (const row of rowsOf("image")) {
    const pixels = modelPixels(await decoded(row.name), manifest.image);
    assert.deepEqual(Array.from(pixels), row.pixels, row.name);
  }
});

test("every filter keeps an even colour, and a box of two halves it exactly", () => {
  const even = { data: new Uint8Array(3 * 7 * 5).fill(77), width: 7, height: 5 };
  for (const resample of [0, 1, 2, 3, 4, 5]) {
    const pixels = modelPixels(even, { ...manifest.image, height: 8, width: 3, resample });
    assert.equal(pixels.length, 72);
    assert.ok(pixels.every((value) => value === 77), `filter ${resample}`);
  }
  const half = { data: Uint8Array.of(10, 30, 20, 60), width: 2, height: 2 };
  assert.deepEqual([...modelPixels(half, { ...manifest.image, height: 1, width: 1, resample: 4 })], [30, 30, 30]);
});

test("grey, RGB and RGBA say the same, and transparency lies on white", () => {
  const settings = { ...manifest.image, height: 1, width: 1 };
  const one = (...data) => [...modelPixels({ data: Uint8Array.from(data), width: 1, height: 1 }, settings)];
  assert.deepEqual(one(9), [9, 9, 9]);
  assert.deepEqual(one(9, 255), [9, 9, 9]);
  assert.deepEqual(one(9, 8, 7), [9, 8, 7]);
  assert.deepEqual(one(9, 8, 7, 255), [9, 8, 7]);
  assert.deepEqual(one(9, 8, 7, 0), [255, 255, 255]);
  assert.deepEqual(one(0, 0, 0, 128), [127, 127, 127]);
});
