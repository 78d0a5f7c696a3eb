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
export type ErrorCode = "missing" | "changed" | "schema" | "unsupported" | "input" | "failed";
/** The one error that this package throws: `code` for programs, `message` one sentence for people. */
export declare class RekdEdgeError extends Error {
    /** @type {ErrorCode} */
    code: ErrorCode;
    /**
     * @param {ErrorCode} code
     * @param {string} message
     * @param {unknown} [cause]
     */
    constructor(code: ErrorCode, message: string, cause?: unknown);
}
/**
 * Any error as one of ours.
 *
 * @param {unknown} error
 * @param {string} doing what could not be done
 */
export declare function asOurs(error: unknown, doing: string): RekdEdgeError;
