"""Whether two dropouts, or two system stacks, train bit for bit alike: a certificate of it."""
