// Test driver: tokenizes the JSON document {texts, pairs} from stdin with a kit's tokenizer and
// prints the ids of each text on a line.
//
//     node tokens_main.mjs KIT

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const kit = pathToFileURL(`${process.argv[2]}/`);
const { WordPiece } = await import(new URL("wordpiece.mjs", kit));
const readJson = (name) => JSON.parse(readFileSync(new URL(name, kit), "utf8"));

const tokenizer = new WordPiece(readJson("settings.json").tokenizer, readJson("unicode.json"));
const { texts, pairs } = JSON.parse(readFileSync(0, "utf8"));
const lines = texts.map((text, i) => {
  const { ids, types } = tokenizer.encode(text, pairs ? pairs[i] : null);
  return ids.map((id, j) => `${id}:${types[j]} `).join("");
});
console.log(lines.join("\n"));
