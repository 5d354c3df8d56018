module larder.policy/@NAME@

go 1.25
