import { RekdEdgeError } from "../errors.js";

/**
 * Files below an address.
 *
 * @param {string} source with a slash at its end
 * @returns {import("../bundle.js").ReadFile}
 */
export function fetchReader(source) {
  return async (name) => {
    const address = new URL(name, source).href;
    const response = await fetch(address).catch((error) => {
      throw new RekdEdgeError("missing", `${address} cannot be reached; check the address and the connection.`, error);
    });
    if (response.status === 404) return undefined;
    if (!response.ok) throw new RekdEdgeError("missing", `${address} cannot be read (status ${response.status}).`);
    return new Uint8Array(await response.arrayBuffer());
  };
}
