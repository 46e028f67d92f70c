"""The whole way in twelve lines: texts in memory to a prediction."""

import factories

import kdedge

texts, labels = factories.sentences(96, seed=1)
run = kdedge.distill(
    teacher=factories.bert(),
    tokenizer=factories.tokenizer(),
    train=(texts, labels),
    test=0.25,
    student=kdedge.BiLstm(hidden=8, fit={"epochs": 1}, quantize={"steps": 0}),
)
bundle = kdedge.export_bundle(run)
print(kdedge.Classifier.load(bundle).predict("the film was good").label)  # noqa: T201
