"""What llama.cpp's CPU backend computes between its products, bit for bit (ggml-cpu/ops.cpp, vec.h, vec.cpp)."""
