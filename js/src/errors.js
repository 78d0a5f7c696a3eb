/**
 * What went wrong, for programs:
 *
 * - `missing`: a file of the bundle, or a peer dependency, is not there;
 * - `changed`: a file is not the one that was exported;
 * - `schema`: the manifest is invalid or of a newer schema version;
 * - `unsupported`: the bundle uses something that this package does not read;
 * - `input`: the input is of the wrong kind, or too long;
 * - `failed`: the graph or the worker failed.
 *
 * @typedef {"missing" | "changed" | "schema" | "unsupported" | "input" | "failed"} ErrorCode
 */

/** The one error that this package throws: `code` for programs, `message` one sentence for people. */
export class RekdEdgeError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {unknown} [cause]
   */
  constructor(code, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "RekdEdgeError";
    /** @type {ErrorCode} */
    this.code = code;
  }
}

/**
 * Any error as one of ours.
 *
 * @param {unknown} error
 * @param {string} doing what could not be done
 */
export function asOurs(error, doing) {
  if (error instanceof RekdEdgeError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new RekdEdgeError("failed", `${doing} (${reason.split("\n")[0]}).`, error);
}
