// A text classifier: tokenizer and ONNX Runtime.

import { readFile } from "node:fs/promises";
import "./privacy.mjs";
import { InferenceSession, Tensor } from "onnxruntime-node";

import { WordPiece } from "./wordpiece.mjs";

const readJson = async (name) => JSON.parse(await readFile(new URL(name, import.meta.url), "utf8"));

export class Classifier {
  // Read the files of this folder.
  static async load(threads = 1) {
    const settings = await readJson("settings.json");
    const tokenizer = new WordPiece(settings.tokenizer, await readJson("unicode.json"));
    const model = await readFile(new URL("model.onnx", import.meta.url));
    const options = { intraOpNumThreads: threads, interOpNumThreads: 1 };
    return new Classifier(settings, tokenizer, await InferenceSession.create(model, options));
  }

  constructor(settings, tokenizer, session) {
    Object.assign(this, { settings, tokenizer, session });
  }

  // Return the logits of a text, or of a pair, as a Float32Array.
  async logits(text, pair = null) {
    if ((pair !== null) !== this.settings.task.pair)
      throw new TypeError(`this classifier reads ${pair === null ? "two texts" : "one text"}`);
    const { ids, types } = this.tokenizer.encode(text, pair);
    const values = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: types };
    const inputs = {};
    for (const name of this.settings.inputs)
      inputs[name] = new Tensor("int64", BigInt64Array.from(values[name], BigInt), [1, ids.length]);
    return (await this.session.run(inputs)).logits.data;
  }

  // Return { label, scores }: probabilities by label; `label` is a list for several labels, and
  // a number for a regression.
  async predict(text, pair = null) {
    return toPrediction(this.settings, await this.logits(text, pair));
  }
}

// The logits of a classification are divided by the temperature before the softmax.
export function toPrediction({ task, temperature }, logits) {
  const { kind, labels, threshold } = task;
  if (kind === "regression") return { label: logits[0], scores: {} };
  const values = Array.from(logits);
  const largest = Math.max(...values);
  const sum = values.reduce((total, value) => total + Math.exp((value - largest) / temperature), 0);
  const softmax = (value) => Math.exp((value - largest) / temperature) / sum;
  const sigmoid = (value) => 1 / (1 + Math.exp(-value));
  const shares = values.map(kind === "multilabel" ? sigmoid : softmax);
  const scores = Object.fromEntries(labels.map((label, i) => [label, shares[i]]));
  if (kind === "multilabel") return { label: labels.filter((_, i) => shares[i] > threshold), scores };
  return { label: labels[values.indexOf(largest)], scores };
}
