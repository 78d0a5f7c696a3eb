export type Span = {
    start: number;
    end: number;
    text: string;
};
export type ClassRationale = {
    rationale: Span[];
    scores: number[];
};
export type TextPrediction = {
    label: string;
    label_id: number;
    /**
     * the probability of each label
     */
    scores: Record<string, number>;
    rationale: Span[];
    /**
     * one entry a token, 1 where it is selected
     */
    mask: number[];
    tokens: string[];
    /**
     * share of the tokens that is selected, 0 for a text without tokens
     */
    rationale_ratio: number;
    /**
     * the end of the text was not read
     */
    truncated: boolean;
    /**
     * the selection margin of each token: selected above 0
     */
    margins: number[];
    /**
     * of bundles that score tokens for every label
     */
    class_rationales?: Record<string, ClassRationale>;
};
export type ImagePrediction = {
    label: string;
    label_id: number;
    /**
     * the probability of each label
     */
    scores: Record<string, number>;
    /**
     * the grid of patches row by row, 1 where one is selected
     */
    mask: number[][];
    /**
     * in pixels of the model
     */
    patch_size: number;
    rationale_ratio: number;
    /**
     * the selection margin of each patch, row by row
     */
    margins: number[];
};
/**
 * A stretch of the text: `text === input.slice(start, end)`.
 *
 * @typedef {object} Span
 * @property {number} start
 * @property {number} end
 * @property {string} text
 */
/**
 * What speaks for one label: its spans, and its score of every token, 0 to 1.
 *
 * @typedef {object} ClassRationale
 * @property {Span[]} rationale
 * @property {number[]} scores
 */
/**
 * @typedef {object} TextPrediction
 * @property {string} label
 * @property {number} label_id
 * @property {Record<string, number>} scores the probability of each label
 * @property {Span[]} rationale
 * @property {number[]} mask one entry a token, 1 where it is selected
 * @property {string[]} tokens
 * @property {number} rationale_ratio share of the tokens that is selected, 0 for a text without tokens
 * @property {boolean} truncated the end of the text was not read
 * @property {number[]} margins the selection margin of each token: selected above 0
 * @property {Record<string, ClassRationale>} [class_rationales] of bundles that score tokens for every label
 */
/**
 * @typedef {object} ImagePrediction
 * @property {string} label
 * @property {number} label_id
 * @property {Record<string, number>} scores the probability of each label
 * @property {number[][]} mask the grid of patches row by row, 1 where one is selected
 * @property {number} patch_size in pixels of the model
 * @property {number} rationale_ratio
 * @property {number[]} margins the selection margin of each patch, row by row
 */
/**
 * Label and softmax scores of a row of logits.
 *
 * @param {ArrayLike<number>} logits
 * @param {string[]} labels
 */
export declare function decision(logits: ArrayLike<number>, labels: string[]): {
    label: string;
    label_id: number;
    scores: {
        [k: string]: number;
    };
};
/**
 * Merge neighbouring selected tokens into spans, from the first start to the last end.
 *
 * @param {[number, number][]} offsets
 * @param {ArrayLike<number>} mask
 * @returns {[number, number][]}
 */
export declare function mergeSpans(offsets: [number, number][], mask: ArrayLike<number>): [number, number][];
/**
 * The tokens of a class that is not the label: scores above its threshold, or the first of the best, with those beside
 * it that have the very same.
 *
 * @param {number[]} scores
 * @param {number} threshold
 * @returns {number[]}
 */
export declare function classMask(scores: number[], threshold: number): number[];
/**
 * Where every code point begins in a JavaScript string, and where the last one ends.
 *
 * @param {string} text
 * @returns {number[]}
 */
export declare function codeUnitStarts(text: string): number[];
