// The page: load the bundle, check this browser, and classify what is typed.
// Labels and names come from data. They are shown as text, never as HTML.

import { Classifier, RUNTIME } from "./classifier.js";
import { replay } from "./golden.js";

const SHOWN_LABELS = 10;

const element = (id) => document.getElementById(id);

function show(id, text) {
  element(id).textContent = text;
}

async function start() {
  show("status", "Loading the model.");
  const classifier = await Classifier.load("bundle/");
  describe(classifier);
  show("status", "Comparing this browser with the golden texts.");
  const check = await replay(classifier, await classifier.bundle.json("golden.json"));
  showCheck(check);
  listen(classifier);
}

function describe({ bundle, manifest, spec, precision }) {
  document.title = manifest.name;
  show("name", manifest.name);
  element("second").hidden = !spec.pair;
  if (spec.pair) {
    show("text-label", "First text");
  }
  const file = manifest.precisions[precision];
  const megabytes = (manifest.files[file].bytes / 1e6).toFixed(1);
  const facts = {
    "Model file": `${file}, ${megabytes} MB`,
    Runtime: `${RUNTIME}, WebAssembly, one thread`,
    Files: bundle.canCheck
      ? "The SHA-256 of every loaded file is that of the manifest."
      : "Only sizes are checked: browsers compute SHA-256 for https and localhost only.",
    "Digest, as the manifest states it": manifest.digest,
  };
  for (const [name, value] of Object.entries(facts)) {
    element("facts").append(textNode("dt", name), textNode("dd", value));
  }
}

function showCheck(check) {
  const labels = `${check.texts - check.labelMismatches} of ${check.texts} labels are equal`;
  const largest = `the largest difference of a logit is ${check.largest.toPrecision(2)}`;
  if (check.passed) {
    show("status", `This browser agrees with the export: ${labels}, ${largest}.`);
    return;
  }
  show("status", "");
  const tokens = `${check.tokenMismatches} of ${check.texts} texts have other tokens`;
  const quartile = `its lower quartile over the texts ${check.quartile.toPrecision(2)}`;
  const facts = [tokens, labels, largest, quartile].join(", ");
  show("problem", `This browser does not agree with the export: ${facts}.`);
}

function listen(classifier) {
  const form = element("form");
  let last = Promise.resolve(); // A session runs one text at a time.
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    last = last.then(() => classify(classifier)).catch(fail);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit(element("classify"));
    }
  });
  element("classify").disabled = false;
}

async function classify(classifier) {
  // The button is not disabled meanwhile: it would lose the keyboard's focus.
  const pair = classifier.spec.pair ? element("pair").value : null;
  const prediction = await classifier.predict(element("text").value, pair);
  showPrediction(classifier, prediction);
}

function showPrediction({ spec, manifest }, prediction) {
  element("result").hidden = false;
  show("answer", answerOf(spec, prediction));
  const cut = prediction.truncated ? `; the rest of the text was cut` : "";
  const tokens = `${prediction.tokens} of at most ${manifest.max_length} tokens${cut}`;
  show("cost", `${prediction.milliseconds.toFixed(1)} ms, ${tokens}`);
  showScores(spec, prediction);
}

function answerOf(spec, { label, score }) {
  if (spec.kind === "regression") {
    return `${label}: ${score.toFixed(3)}`;
  }
  if (spec.kind === "multilabel") {
    const threshold = percent(spec.threshold ?? 0.5);
    return label.length > 0 ? label.join(", ") : `No label is above ${threshold}.`;
  }
  return `${label}, ${percent(score)}`;
}

function showScores(spec, { label, scores }) {
  const rows = element("scores");
  rows.replaceChildren();
  element("columns").replaceChildren();
  if (spec.kind === "regression") {
    return;
  }
  const head = document.createElement("tr");
  for (const name of ["Label", "Probability"]) {
    head.append(cell("th", name, "col"));
  }
  element("columns").append(head);
  const sorted = [...scores].sort((one, other) => other.score - one.score);
  for (const item of sorted.slice(0, SHOWN_LABELS)) {
    const predicted = spec.kind === "multilabel" ? label.includes(item.label) : item.label === label;
    rows.append(scoreRow(item, predicted));
  }
  const hidden = sorted.length - SHOWN_LABELS;
  element("more").hidden = hidden <= 0;
  show("more", `${hidden} more labels have lower probabilities.`);
}

function scoreRow({ label, score }, predicted) {
  const row = document.createElement("tr");
  row.className = predicted ? "predicted" : "";
  const value = cell("td", percent(score));
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.inlineSize = `${100 * score}%`;
  value.append(bar);
  row.append(cell("th", label, "row"), value);
  return row;
}

function cell(kind, text, scope) {
  const made = textNode(kind, text);
  if (scope) {
    made.scope = scope;
  }
  return made;
}

function textNode(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function fail(error) {
  show("status", "");
  show("problem", `The classifier cannot be used. ${error.message}`);
  console.error(error);
}

start().catch(fail);
