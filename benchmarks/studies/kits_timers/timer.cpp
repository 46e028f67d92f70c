// Print the seconds of each call of Classifier::logits: ./timer CALLS TEXT

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "classifier.hpp"

int main(int argc, char** argv)
{
    Classifier classifier("model.onnx");
    for (int i = argc == 3 ? std::atoi(argv[1]) : 0; i > 0; i--) {
        auto start = std::chrono::steady_clock::now();
        classifier.logits(argv[2]);
        std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        std::printf("%.9f\n", seconds.count());
    }
}
