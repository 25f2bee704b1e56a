module example.org/go-redis

go 1.26
