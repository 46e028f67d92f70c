// Texts to token ids, as kdedge's Python runtime computes them.

import { Tokenizer } from "./vendor/tokenizers/tokenizers.min.mjs";

/** A text is first cut to this many characters per token that the model reads. */
const CHARACTERS_PER_TOKEN = 32;

/**
 * Ideographs beyond U+FFFF that BERT's normalizer separates from their neighbours.
 * The JavaScript tokenizer overlooks them because it reads UTF-16 units.
 */
const RARE_IDEOGRAPHS =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

export class Encoder {
  /**
   * @param document The parsed tokenizer.json.
   * @param manifest The parsed kdedge.json.
   */
  constructor(document, manifest) {
    this.tokenizer = new Tokenizer(document, {});
    this.maxLength = manifest.max_length;
    this.separatesIdeographs = document.normalizer?.handle_chinese_chars === true;
    this.lowercases = document.normalizer?.lowercase === true;
  }

  /**
   * Return {ids, types, truncated} of a text, or of two texts.
   * @param {string} text
   * @param {string | null} pair
   */
  encode(text, pair = null) {
    const [first, firstCut] = this.#cut(text);
    const [second, secondCut] = pair === null ? [null, false] : this.#cut(pair);
    const secondTokens = second === null ? null : this.#tokens(second); // "" is a text, too.
    const { tokens, truncated } = this.#truncate(this.#tokens(first), secondTokens);
    const { tokens: whole, token_type_ids: types } = this.#addSpecial(tokens[0], tokens[1]);
    return {
      ids: whole.map((token) => this.#id(token)),
      types: types ?? new Array(whole.length).fill(0),
      truncated: truncated || firstCut || secondCut,
    };
  }

  #cut(text) {
    const characters = Array.from(text);
    const limit = this.maxLength * CHARACTERS_PER_TOKEN;
    return [characters.slice(0, limit).join(""), characters.length > limit];
  }

  #tokens(text) {
    let spaced = this.separatesIdeographs ? text.replace(RARE_IDEOGRAPHS, " $& ") : text;
    // At the end of a word JavaScript writes a small sigma as ς; Python's tokenizer never does.
    if (this.lowercases) spaced = spaced.replaceAll("Σ", "σ");
    return this.tokenizer.tokenize(spaced, { add_special_tokens: false });
  }

  /** Shorten the longer text first, until both fit beside the special tokens. */
  #truncate(first, second) {
    const special = this.#addSpecial([], second === null ? null : []).tokens.length;
    const room = this.maxLength - special;
    if (first.length + (second?.length ?? 0) <= room) {
      return { tokens: [first, second], truncated: false };
    }
    if (second === null) {
      return { tokens: [first.slice(0, room), null], truncated: true };
    }
    const [firstLength, secondLength] = longestFirst(first.length, second.length, room);
    return {
      tokens: [first.slice(0, firstLength), second.slice(0, secondLength)],
      truncated: true,
    };
  }

  #addSpecial(first, second) {
    const processor = this.tokenizer.post_processor;
    if (processor === null) {
      return { tokens: second === null ? first : [...first, ...second] };
    }
    const made = processor.post_process(first, second, true);
    // RoBERTa has no token types. The JavaScript tokenizer gives the second text the type 1.
    const types = processor.config.type === "RobertaProcessing" ? undefined : made.token_type_ids;
    return { tokens: made.tokens, token_type_ids: types };
  }

  #id(token) {
    return this.tokenizer.token_to_id(token) ?? this.tokenizer.model.unk_token_id;
  }
}

/** Return how many tokens of two texts remain, as the Rust library `tokenizers` divides them. */
export function longestFirst(first, second, room) {
  const shorter = Math.min(first, second);
  let lengths = [shorter, Math.max(shorter, room - shorter)];
  if (lengths[0] + lengths[1] > room) {
    lengths = [Math.floor(room / 2), Math.ceil(room / 2)];
  }
  return first > second ? lengths.reverse() : lengths;
}
