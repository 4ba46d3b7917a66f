package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type named kernel ../../bpf/names.c -- -mcpu=v3 -I../../bpf/include
