# Completes pmexp in bash: eval "$(pmexp completion bash)"
_pmexp() {
    local line="${COMP_LINE:0:COMP_POINT}" each
    local word="${line##*[[:space:]]}"
    local last="${word##*["$COMP_WORDBREAKS"]}" # what readline completes: it takes = and : for the ends of words
    COMPREPLY=()
    while IFS= read -r each; do
        COMPREPLY+=("${each#"${word%"$last"}"}")
    done < <("${COMP_WORDS[0]}" completion "line=$line" 2> /dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
complete -o default -F _pmexp pmexp
