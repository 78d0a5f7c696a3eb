export type NormalizerSettings = {
    clean_text: boolean;
    handle_chinese_chars: boolean;
    strip_accents: boolean | null;
    lowercase: boolean;
};
export type Word = {
    /**
     * one code point each
     */
    characters: string[];
    /**
     * the code point of the text that each came from
     */
    from: number[];
};
/**
 * @typedef {object} NormalizerSettings of `BertNormalizer` in tokenizer.json
 * @property {boolean} clean_text
 * @property {boolean} handle_chinese_chars
 * @property {boolean | null} strip_accents
 * @property {boolean} lowercase
 */
/**
 * @typedef {object} Word a run of normalised characters
 * @property {string[]} characters one code point each
 * @property {number[]} from the code point of the text that each came from
 */
/**
 * Normalise a text and split it into words.
 *
 * @param {string[]} codePoints the text, one string a code point
 * @param {NormalizerSettings} settings
 * @returns {Generator<Word>}
 */
export declare function words(codePoints: string[], settings: NormalizerSettings): Generator<Word>;
