module larder.policy/keep-recent

go 1.25
