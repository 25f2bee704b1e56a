// Package proc starts the programs that tests and loadtest need around them, on free ports of
// 127.0.0.1, and lets them suffer: redis-server (alone, as a cluster, under sentinels, with TLS),
// ZooKeeper, and our own binaries.
//
// Everything that is started here ends with this process, however that ends: the kernel kills a
// child when its parent dies.
//
//	server, err := proc.StartRedis(ctx, proc.RedisOptions{})
//	…
//	defer server.Close()
//	server.Pause()  // SIGSTOP: it is there and does not answer
//	server.Resume() // SIGCONT
//	server.Kill()   // SIGKILL
//	server.Restart(ctx)
//
// Redis and ZooKeeper are Debian's packages redis-server and zookeeper. What is missing is an
// error, never a reason to skip.
package proc
