// Classify texts with a bundle, in the browser:
//
//   import { Classifier } from "./classifier.js";
//   const classifier = await Classifier.load("bundle/");
//   const prediction = await classifier.predict("a text");
//   console.log(prediction.label, prediction.score);

import * as ort from "./vendor/onnxruntime-web/ort.wasm.min.mjs";
import { Bundle } from "./bundle.js";
import { Encoder } from "./tokens.js";

// More threads would need a page that is isolated from other origins by HTTP headers.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("vendor/onnxruntime-web/", import.meta.url).href;

export const RUNTIME = `onnxruntime-web ${ort.env.versions.web}`;

export class Classifier {
  /** Use Classifier.load. */
  constructor(bundle, encoder, session) {
    this.bundle = bundle;
    this.manifest = bundle.manifest;
    this.spec = bundle.manifest.spec;
    this.precision = bundle.precision;
    this.encoder = encoder;
    this.session = session;
  }

  /**
   * Load a bundle and verify the files that are read.
   * @param folder URL of the bundle's folder, relative to the page.
   */
  static async load(folder) {
    const bundle = await Bundle.open(new URL(folder, document.baseURI));
    const [tokenizer, graph] = await Promise.all([
      bundle.json("tokenizer.json"),
      bundle.bytes(bundle.manifest.precisions[bundle.precision]),
    ]);
    const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
    return new Classifier(bundle, new Encoder(tokenizer, bundle.manifest), session);
  }

  /** Return the logits of a text's token ids, as a Float32Array. */
  async run({ ids, types }) {
    const inputs = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: types };
    const feeds = {};
    for (const name of this.manifest.inputs) {
      const values = BigInt64Array.from(inputs[name], BigInt);
      feeds[name] = new ort.Tensor("int64", values, [1, values.length]);
    }
    const { logits } = await this.session.run(feeds);
    return logits.data;
  }

  /**
   * Classify one text, or one pair of texts.
   * @returns label, score, scores ([{label, score}] in the manifest's order), logits, tokens,
   *   truncated, milliseconds. The label of a multilabel task is a list.
   */
  async predict(text, pair = null) {
    const start = performance.now();
    const encoded = this.encoder.encode(text, pair);
    const logits = await this.run(encoded);
    const milliseconds = performance.now() - start;
    const scores = scoresOf(this.manifest, logits);
    return {
      label: labelOf(this.spec, logits),
      score: Math.max(...scores),
      scores: this.spec.labels.map((label, i) => ({ label, score: scores[i] })),
      logits: Array.from(logits),
      tokens: encoded.ids.length,
      truncated: encoded.truncated,
      milliseconds,
    };
  }
}

/** Convert logits to probabilities; the logit of a regression is its score. */
export function scoresOf(manifest, logits) {
  const values = Array.from(logits);
  if (manifest.spec.kind === "regression") {
    return values;
  }
  if (manifest.spec.kind === "multilabel") {
    return values.map((value) => 1 / (1 + Math.exp(-value)));
  }
  const temperature = manifest.temperature ?? 1;
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp((value - largest) / temperature));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** Return the predicted label; for a multilabel task, all labels above the threshold. */
export function labelOf(spec, logits) {
  if (spec.kind === "regression") {
    return spec.labels[0];
  }
  if (spec.kind === "multilabel") {
    const threshold = spec.threshold ?? 0.5;
    return spec.labels.filter((label, i) => 1 / (1 + Math.exp(-logits[i])) > threshold);
  }
  return spec.labels[logits.indexOf(Math.max(...logits))];
}
