// ONNX Runtime sends usage data to Microsoft unless this is set before it is loaded. Import this
// module before onnxruntime-node.

process.env.ORT_DISABLE_TELEMETRY ??= "1";
