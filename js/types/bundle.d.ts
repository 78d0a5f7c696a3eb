export type ImageSettings = import("./image.js").ImageSettings;
export type ReadFile = (name: string) => Promise<Uint8Array<ArrayBuffer> | undefined>;
export type TextSettings = {
    max_length: number;
    special_token_ids: number[];
    pad_token_id: number;
};
export type Manifest = {
    schema_version: number;
    /**
     * `text-classification` or `image-classification`
     */
    task: string;
    labels: string[];
    files: Record<string, {
        size: number;
        sha256: string;
    }>;
    seal?: string;
    method?: string;
    precision?: string;
    text?: TextSettings;
    image?: ImageSettings;
    class_thresholds?: number[];
    graph?: {
        outputs: {
            name: string;
        }[];
    };
    near_ties?: {
        width: number;
    };
    conformal?: {
        coverage: number;
        threshold: number;
        rows: number;
    };
};
export type Bundle = {
    manifest: Manifest;
    graph: Uint8Array<ArrayBuffer>;
    /**
     * the parsed tokenizer.json of a text bundle
     */
    tokenizer: any;
};
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
export declare function readBundle(read: ReadFile, place: string, verify: boolean): Promise<Bundle>;
