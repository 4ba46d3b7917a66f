package main
import ("github.com/cilium/ebpf";"golang.org/x/sys/unix";"time")
func main(){ s,err:=ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME)); if err!=nil{panic(err)}; time.Sleep(time.Hour); s.Close()}
