// BERT's WordPiece: text to token ids, the same ids as the Python package `tokenizers`.
//
// @huggingface/tokenizers gives other ids for some texts: it follows the Unicode version of Node,
// lower-cases a final sigma by its place, and does not separate rare ideographs.

const REMOVED = 1;
const BLANK = 2;
const SEPARATOR = 4;
const PUNCTUATION = 8;
const MARK = 16;
const IDEOGRAPH = 32;
const CLASS_SHIFT = 8;

export class WordPiece {
  // settings: "tokenizer" of settings.json; tables: unicode.json.
  constructor(settings, tables) {
    this.settings = settings;
    this.ids = new Map(settings.pieces.map((piece, id) => [piece, id]));
    this.ids.delete("");
    this.properties = tables.properties;
    this.decompositions = replacements(tables.decompositions);
    this.lowercase = replacements(tables.lowercase);
  }

  // Return ids, and types: 0 in the first text and 1 in the second.
  encode(text, pair = null) {
    const { begin, between, end, maxLength } = this.settings;
    const first = this.textIds(text);
    if (pair === null) {
      truncate(first, [], maxLength - 2);
      return { ids: [begin, ...first, end], types: Array(first.length + 2).fill(0) };
    }
    const second = this.textIds(pair);
    truncate(first, second, maxLength - 3);
    first.push(between);
    second.push(end);
    const types = [0, ...first.map(() => 0), ...second.map(() => 1)];
    return { ids: [begin, ...first, ...second], types };
  }

  // Special tokens are found in the text as it is; only what is between them is normalized.
  textIds(text) {
    const { maxCharacters, special } = this.settings;
    const cut = firstCharacters(text, maxCharacters).toWellFormed();
    const ids = [];
    let start = 0;
    for (let i = 0; i < cut.length; ) {
      const token = special.find(({ content }) => cut.startsWith(content, i));
      if (token) {
        this.addSegment(ids, cut.slice(start, i));
        ids.push(token.id);
        i += token.content.length;
        start = i;
      } else {
        i += 1;
      }
    }
    this.addSegment(ids, cut.slice(start));
    return ids;
  }

  addSegment(ids, segment) {
    for (const word of this.words(this.normalize(segment))) ids.push(...this.wordIds(word));
  }

  // What BertNormalizer does: return the characters of the segment.
  normalize(segment) {
    const { cleanText, chinese, stripAccents, lowercase } = this.settings;
    const characters = [];
    for (const character of segment) {
      const properties = this.propertiesOf(character);
      if (cleanText && properties & REMOVED) continue;
      const cleaned = cleanText && properties & BLANK ? " " : character;
      const parts = stripAccents ? this.decompose(cleaned) : [cleaned];
      if (chinese && properties & IDEOGRAPH) characters.push(" ", ...parts, " ");
      else characters.push(...parts);
    }
    const kept = stripAccents ? this.withoutMarks(characters) : characters;
    if (!lowercase) return kept;
    return kept.flatMap((character) => this.lowercase.get(character) ?? character);
  }

  decompose(character) {
    const code = character.codePointAt(0);
    if (code < 0xac00 || code >= 0xd7a4) return this.decompositions.get(character) ?? [character];
    const syllable = code - 0xac00; // Hangul: three letters, or two.
    const letters = [0x1100 + Math.floor(syllable / 588), 0x1161 + Math.floor((syllable % 588) / 28)];
    if (syllable % 28) letters.push(0x11a7 + (syllable % 28));
    return letters.map((letter) => String.fromCodePoint(letter));
  }

  // Put marks into canonical order and remove those that strip_accents removes.
  withoutMarks(characters) {
    const classOf = (character) => this.propertiesOf(character) >> CLASS_SHIFT;
    for (let start = 0; start < characters.length; start += 1) {
      let end = start;
      while (end < characters.length && classOf(characters[end])) end += 1;
      if (end - start < 2) continue;
      const run = characters.slice(start, end).sort((a, b) => classOf(a) - classOf(b));
      run.forEach((character, i) => (characters[start + i] = character));
      start = end;
    }
    return characters.filter((character) => !(this.propertiesOf(character) & MARK));
  }

  // Separators end words; punctuation marks are words of their own. A word is a list of characters.
  words(characters) {
    const words = [[]];
    for (const character of characters) {
      const properties = this.propertiesOf(character);
      if (properties & SEPARATOR) words.push([]);
      else if (properties & PUNCTUATION) words.push([character], []);
      else words.at(-1).push(character);
    }
    return words.filter((word) => word.length);
  }

  // Return the ids of the longest pieces that make up the word (Schuster and Nakajima 2012).
  wordIds(word) {
    const { maxWordCharacters, prefix, unknown } = this.settings;
    if (word.length > maxWordCharacters) return [unknown];
    const ids = [];
    for (let start = 0; start < word.length; ) {
      let id;
      let end = word.length;
      for (; end > start; end -= 1) {
        id = this.ids.get((start ? prefix : "") + word.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [unknown];
      ids.push(id);
      start = end;
    }
    return ids;
  }

  // Return the flags of a character, and its combining class above them.
  propertiesOf(character) {
    const code = character.codePointAt(0);
    let low = 0;
    let high = this.properties.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.properties[middle][0] <= code) low = middle;
      else high = middle;
    }
    return this.properties[low][1];
  }
}

function replacements(rows) {
  const map = new Map();
  for (const row of rows) {
    const [from, ...to] = row.map((code) => String.fromCodePoint(code));
    map.set(from, to);
  }
  return map;
}

function firstCharacters(text, limit) {
  if (text.length <= limit) return text;
  return [...text.slice(0, 2 * limit)].slice(0, limit).join("");
}

// Cut two texts to `most` ids together, the longer one first, as `tokenizers` does.
function truncate(first, second, most) {
  if (first.length + second.length <= most) return;
  const [shorter, longer] = first.length > second.length ? [second, first] : [first, second];
  shorter.length = Math.min(shorter.length, Math.floor(most / 2));
  longer.length = most - shorter.length;
}
