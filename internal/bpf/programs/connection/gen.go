package connection

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type connection_event -type end_event connection ../../../../bpf/connection.c -- -mcpu=v3 -I../../../../bpf/include
