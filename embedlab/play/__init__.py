"""A page on this machine to feel an edit before it is swept: a prompt, its tokens, operators, pictures that follow."""
