// A bundle's files, and the check that nothing in it was cut or changed.

import { RekdEdgeError } from "./errors.js";

/** @typedef {import("./image.js").ImageSettings} ImageSettings */

const SCHEMA_VERSION = 1;
const MANIFEST_BYTES = 2 ** 24;

/**
 * Reads one file of a bundle; undefined where it is not there.
 *
 * @callback ReadFile
 * @param {string} name
 * @returns {Promise<Uint8Array<ArrayBuffer> | undefined>}
 */

/**
 * @typedef {object} TextSettings
 * @property {number} max_length
 * @property {number[]} special_token_ids
 * @property {number} pad_token_id
 */

/**
 * A bundle's manifest, which holds more than is listed here.
 *
 * @typedef {object} Manifest
 * @property {number} schema_version
 * @property {string} task `text-classification` or `image-classification`
 * @property {string[]} labels
 * @property {Record<string, { size: number, sha256: string }>} files
 * @property {string} [seal]
 * @property {string} [method]
 * @property {string} [precision]
 * @property {TextSettings} [text]
 * @property {ImageSettings} [image]
 * @property {number[]} [class_thresholds]
 * @property {{ outputs: { name: string }[] }} [graph]
 * @property {{ width: number }} [near_ties]
 * @property {{ coverage: number, threshold: number, rows: number }} [conformal]
 */

/**
 * @typedef {object} Bundle
 * @property {Manifest} manifest
 * @property {Uint8Array<ArrayBuffer>} graph
 * @property {any} tokenizer the parsed tokenizer.json of a text bundle
 */

/**
 * Read a bundle and hold every file against the manifest, and the manifest against its seal.
 *
 * @param {ReadFile} read
 * @param {string} place for messages
 * @param {boolean} verify compute the SHA-256 of the files; their sizes are always checked
 * @returns {Promise<Bundle>}
 */
export async function readBundle(read, place, verify) {
  const raw = await read("manifest.json");
  if (!raw) {
    throw new RekdEdgeError("missing", `${place} holds no manifest.json; give the folder that \`rekd-edge export\` wrote.`);
  }
  if (raw.length > MANIFEST_BYTES) throw new RekdEdgeError("schema", `${place}/manifest.json is larger than any manifest.`);

  const manifest = parseManifest(raw, place);
  if (verify) await checkSeal(read, raw, manifest, place);

  const names = manifest.text ? ["model.onnx", "tokenizer.json"] : ["model.onnx"];
  const [graph, tokenizer] = await Promise.all(names.map((name) => readListed(read, name, manifest, place, verify)));
  return { manifest, graph, tokenizer: tokenizer && parseJson(tokenizer, `${place}/tokenizer.json`) };
}

/**
 * @param {Uint8Array<ArrayBuffer>} raw
 * @param {string} place
 * @returns {Manifest}
 */
function parseManifest(raw, place) {
  const fields = parseJson(raw, `${place}/manifest.json`);
  const version = fields?.schema_version;
  if (!Number.isInteger(version) || version < 1) {
    throw new RekdEdgeError("schema", `${place}/manifest.json states no schema_version, so it is no bundle's manifest.`);
  }
  if (version > SCHEMA_VERSION) {
    throw new RekdEdgeError(
      "schema",
      `${place}/manifest.json has schema version ${version} and this rekd-edge reads up to ${SCHEMA_VERSION}; ` +
        "upgrade with: npm install rekd-edge@latest",
    );
  }

  const wrong = violation(fields);
  if (wrong) throw new RekdEdgeError("schema", `${place}/manifest.json is invalid (${wrong}); export the bundle again.`);
  return fields;
}

/**
 * Where the fields that are read here break the schema.
 *
 * @param {any} fields
 * @returns {string | undefined}
 */
function violation(fields) {
  /** @param {unknown} value */
  const isCount = (value) => Number.isInteger(value) && /** @type {number} */ (value) >= 0;
  const { labels, task, text, image, files } = fields;
  if (!Array.isArray(labels) || !labels.length || labels.some((label) => typeof label !== "string")) {
    return "labels must be strings";
  }
  if (typeof files !== "object" || files === null) return "files is missing";
  for (const record of Object.values(files)) {
    if (!isCount(record?.size) || !/^[0-9a-f]{64}$/.test(record?.sha256)) return "files needs a size and a sha256 each";
  }

  if (task === "text-classification") {
    const known = isCount(text?.max_length) && isCount(text?.pad_token_id) && Array.isArray(text?.special_token_ids);
    return known ? undefined : "text needs max_length, special_token_ids and pad_token_id";
  }
  if (task !== "image-classification") return `task is ${JSON.stringify(task)}`;

  const sizes = [image?.height, image?.width, image?.patch_size];
  if (!sizes.every((size) => isCount(size) && size > 0)) return "image needs height, width and patch_size";
  if (image.height % image.patch_size || image.width % image.patch_size) return "image does not divide into patches";
  const known = [image.mean, image.std].every((each) => Array.isArray(each) && each.length === 3);
  return known && Number.isFinite(image.rescale_factor) && isCount(image.resample) ? undefined : "image is incomplete";
}

/**
 * @param {ReadFile} read
 * @param {Uint8Array<ArrayBuffer>} raw
 * @param {Manifest} manifest
 * @param {string} place
 */
async function checkSeal(read, raw, manifest, place) {
  const seal = await read("manifest.sha256");
  if (!seal && manifest.seal) throw new RekdEdgeError("missing", `${place}/manifest.sha256 is missing; copy the whole bundle.`);
  if (!seal) return; // of version 0.1

  const [stated] = new TextDecoder().decode(seal).split(/\s/, 1);
  if (stated !== (await sha256(raw))) throw changed(`${place}/manifest.json`);
}

/**
 * @param {ReadFile} read
 * @param {string} name
 * @param {Manifest} manifest
 * @param {string} place
 * @param {boolean} verify
 */
async function readListed(read, name, manifest, place, verify) {
  const record = manifest.files[name];
  if (!record) throw new RekdEdgeError("schema", `${place}/manifest.json does not list ${name}; export the bundle again.`);

  const content = await read(name);
  if (!content) throw new RekdEdgeError("missing", `${place}/${name} is missing; copy the whole bundle again.`);
  if (content.length !== record.size) {
    throw new RekdEdgeError(
      "changed",
      `${place}/${name} has ${content.length} bytes where the manifest says ${record.size}; copy the bundle again.`,
    );
  }
  if (verify && (await sha256(content)) !== record.sha256) throw changed(`${place}/${name}`);
  return content;
}

/** @param {string} file */
function changed(file) {
  return new RekdEdgeError("changed", `${file} is not the file that was exported (its SHA-256 differs); copy the bundle again.`);
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} file
 */
function parseJson(bytes, file) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new RekdEdgeError("schema", `${file} is not valid JSON; export the bundle again.`, error);
  }
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function sha256(bytes) {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle) {
    throw new RekdEdgeError(
      "failed",
      "Browsers compute SHA-256 only on pages from https or localhost; serve the page so, or load with { verify: false }.",
    );
  }
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
