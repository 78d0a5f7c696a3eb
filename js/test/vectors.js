// The vectors of tests/vectors: the same files for every runtime.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import sharp from "sharp";

const folder = new URL("../../tests/vectors/", import.meta.url);

/** @param {"text" | "image"} task */
export function rowsOf(task) {
  return JSON.parse(readFileSync(new URL(`${task}.json`, folder), "utf-8"));
}

/** @param {string} name such as `text-int8` */
export function bundlePath(name) {
  return fileURLToPath(new URL(`bundles/${name}`, folder));
}

/** @param {string} name of a bundle */
export function manifestOf(name) {
  return JSON.parse(readFileSync(new URL(`bundles/${name}/manifest.json`, folder), "utf-8"));
}

/** @param {string} name of an image */
export function imagePath(name) {
  return fileURLToPath(new URL(`images/${name}.png`, folder));
}

/** @param {string} name of an image */
export async function decoded(name) {
  const image = sharp(imagePath(name)).toColourspace("srgb");
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  return { data: new Uint8Array(data), width: info.width, height: info.height };
}

/**
 * How far margins may drift from those in the vectors.
 *
 * @param {import("../src/index.js").Manifest} manifest
 */
export function bandOf(manifest) {
  const { near_ties: band } = manifest;
  if (!band) throw new Error("the vectors' manifests state their band of near-ties");
  return band.width;
}
