package packetdrop

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type packet_drop_event -type drop -type tally packetDrop ../../../../bpf/packet_drop.c -- -mcpu=v3 -I../../../../bpf/include
