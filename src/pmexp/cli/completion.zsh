#compdef pmexp
# Completes pmexp in zsh, behind compinit: eval "$(pmexp completion zsh)"
_pmexp() {
    local -a known
    known=("${(@f)$("${words[1]}" completion "line=${(j: :)words[1,CURRENT-1]} $PREFIX" 2> /dev/null)}")
    known=(${known:#})
    if (( ! $#known )); then
        compset -P '*='
        _files
        return
    fi
    compadd -S '' -- ${(M)known:#*[=.]}
    compadd -- ${known:#*[=.]}
}
compdef _pmexp pmexp
