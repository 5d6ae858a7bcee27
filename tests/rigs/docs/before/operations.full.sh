# The "new" image is the one that the nodes have.
TAG=test
