export type EncodedText = {
    ids: number[];
    tokens: string[];
    /**
     * start and end in code points of the text
     */
    offsets: [number, number][];
    /**
     * false for the special tokens that the tokenizer itself adds
     */
    feature: boolean[];
    /**
     * the end of the text was cut
     */
    truncated: boolean;
};
export type Piece = {
    token: string;
    start: number;
    end: number;
};
/**
 * One tokenised text; every list has one entry a position, special tokens included.
 *
 * @typedef {object} EncodedText
 * @property {number[]} ids
 * @property {string[]} tokens
 * @property {[number, number][]} offsets start and end in code points of the text
 * @property {boolean[]} feature false for the special tokens that the tokenizer itself adds
 * @property {boolean} truncated the end of the text was cut
 */
/**
 * @typedef {object} Piece
 * @property {string} token
 * @property {number} start
 * @property {number} end
 */
/** The tokenizer of a bundle. */
export declare class TextTokenizer {
    #private;
    library: any;
    document: any;
    cut: (codePoints: string[]) => Generator<Piece, any, any>;
    /** @type {{ token: string, id: number }[]} */
    before: {
        token: string;
        id: number;
    }[];
    /** @type {{ token: string, id: number }[]} */
    after: {
        token: string;
        id: number;
    }[];
    room: number;
    longest: number;
    specials: Set<number>;
    /**
     * @param {any} document tokenizer.json
     * @param {number} maxLength positions, special tokens included
     */
    constructor(document: any, maxLength: number);
    /**
     * Tokenise a text.
     *
     * @param {string} text
     * @returns {EncodedText}
     */
    encode(text: string): EncodedText;
}
