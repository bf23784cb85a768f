# Completes pmexp in fish: pmexp completion fish | source
complete -c pmexp -a '(pmexp completion line=(commandline -cp | string collect) 2> /dev/null)'
