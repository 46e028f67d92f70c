// A text classifier: tokenizer and ONNX Runtime. The vocabulary and the task are compiled in.

#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "unicode_tables.h"
#include "vocabulary.h"
#include "task.h"
#include "wordpiece.h"

struct Tokens {
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> types;  // 0 in the first text, 1 in the second
};

// Throws std::invalid_argument if the number of texts is wrong.
inline Tokens tokenize(std::string_view text, const std::string_view* pair = nullptr)
{
    if ((pair != nullptr) != bool(KD_PAIR))
        throw std::invalid_argument(KD_PAIR ? "this classifier reads two texts at a time"
                                            : "this classifier reads one text at a time");
    std::array<std::int32_t, KD_MAX_LENGTH> ids, types;
    const char* second = nullptr;
    if (pair)
        second = pair->data() ? pair->data() : "";
    int count = kd_tokenize(text.data(), text.size(), second, pair ? pair->size() : 0, ids.data(),
                            types.data());
    if (count < 0)
        throw std::bad_alloc();
    return {{ids.begin(), ids.begin() + count}, {types.begin(), types.begin() + count}};
}

// `logits` may be called by several threads at once.
class Classifier {
public:
    // Throws Ort::Exception if the file cannot be read.
    explicit Classifier(const std::string& model_path, int threads = 1)
        : session_(environment_, model_path.c_str(), options(threads))
    {
    }

    // Return KD_OUTPUTS logits.
    std::vector<float> logits(std::string_view text, const std::string_view* pair = nullptr)
    {
        return logits(tokenize(text, pair));
    }

    std::vector<float> logits(Tokens tokens)
    {
        std::vector<std::int64_t> mask(tokens.ids.size(), 1);
        std::vector<Ort::Value> inputs;
        for (std::string_view name : input_names_) {
            if (name == "input_ids")
                inputs.push_back(tensor(tokens.ids));
            else if (name == "attention_mask")
                inputs.push_back(tensor(mask));
            else
                inputs.push_back(tensor(tokens.types));
        }
        const char* output_name = "logits";
        auto outputs = session_.Run(Ort::RunOptions{nullptr}, input_names_.data(), inputs.data(),
                                    inputs.size(), &output_name, 1);
        const float* values = outputs[0].GetTensorData<float>();
        return {values, values + KD_OUTPUTS};
    }

private:
    // ONNX Runtime's official builds send usage data to Microsoft unless this is set before.
    static Ort::Env quiet_environment()
    {
        setenv("ORT_DISABLE_TELEMETRY", "1", 0);
        return Ort::Env{ORT_LOGGING_LEVEL_WARNING, "kdedge"};
    }

    static Ort::SessionOptions options(int threads)
    {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        options.SetInterOpNumThreads(1);
        return options;
    }

    // A tensor (1, tokens) on the memory of `values`.
    static Ort::Value tensor(std::vector<std::int64_t>& values)
    {
        static const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        std::array<std::int64_t, 2> shape{1, std::int64_t(values.size())};
        return Ort::Value::CreateTensor<std::int64_t>(memory, values.data(), values.size(),
                                                      shape.data(), shape.size());
    }

    Ort::Env environment_ = quiet_environment();
    Ort::Session session_;
    std::vector<const char*> input_names_{KD_INPUTS};
};
