package engine

const limitedEnv = "DISTMSG_TEST_LIMITED_NODE"

func limitedNode() {}
