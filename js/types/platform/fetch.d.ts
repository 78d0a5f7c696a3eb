/**
 * Files below an address.
 *
 * @param {string} source with a slash at its end
 * @returns {import("../bundle.js").ReadFile}
 */
export declare function fetchReader(source: string): import("../bundle.js").ReadFile;
