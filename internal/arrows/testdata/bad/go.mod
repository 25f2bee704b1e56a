module bad

go 1.26

require example.org/go-redis v0.0.0

replace example.org/go-redis => ./redis
