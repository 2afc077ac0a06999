"""How clients and the broker talk: Varlink over a Unix socket, fds by SCM_RIGHTS."""
