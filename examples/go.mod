module distmsg/examples

go 1.26.0

require distmsg v0.0.0

replace distmsg => ../
