// Package proc starts the programs that tests and loadtest need, on free ports of 127.0.0.1, and
// injects faults into them: redis-server (alone, as a cluster, under sentinels, with TLS),
// ZooKeeper, and our own binaries.
//
// Every program that is started here ends with this process, in whatever way this process ends: the
// kernel kills a child when its parent dies.
//
//	server, err := proc.StartRedis(ctx, proc.RedisOptions{})
//	…
//	defer server.Close()
//	server.Pause()  // SIGSTOP: it is there and does not answer
//	server.Resume() // SIGCONT
//	server.Kill()   // SIGKILL
//	server.Restart(ctx)
//
// Redis and ZooKeeper come from Debian's packages redis-server and zookeeper. A missing program is
// an error, never a reason to skip a test.
package proc
