// Classify texts with transformers.js and a bundle on disk, and print its answers as JSON.
//   node pipeline.mjs MODULES < {"bundle": PATH, "dtype": "q8", "rows": [...], "model": "auto"}
// A row is one text or two. "model" may name a class of transformers.js, for kinds of models that
// its pipeline does not know.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.argv[2], "index.js"));
const library = await import(pathToFileURL(require.resolve("@huggingface/transformers")));
const { AutoTokenizer, env, pipeline } = library;
const request = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(request.bundle);

const path = basename(request.bundle);
const answers = [];
if (request.rows[0].length === 1 && request.model === "auto") {
  const classify = await pipeline("text-classification", path, { dtype: request.dtype });
  for (const [text] of request.rows) {
    answers.push(await classify(text, { top_k: null }));
  }
}
// The pipeline reads single texts only, so logits and pairs come from its parts.
const tokenizer = await AutoTokenizer.from_pretrained(path);
const name = request.model === "auto" ? "AutoModelForSequenceClassification" : request.model;
const model = await library[name].from_pretrained(path, { dtype: request.dtype });
const rows = [];
for (const [text, second] of request.rows) {
  const inputs = tokenizer(text, {
    text_pair: second ?? null,
    truncation: true,
    return_token_type_ids: true,
  });
  const { logits } = await model(inputs);
  rows.push({ ids: Array.from(inputs.input_ids.data, Number), logits: Array.from(logits.data) });
}
console.log(JSON.stringify({ answers, rows }));
