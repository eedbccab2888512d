# bash completion for wiresnake: source it, or put it into /etc/bash_completion.d
_wiresnake() {
    local word line="${COMP_WORDS[*]:0:COMP_CWORD+1}"
    [[ -z $COMP_LINE ]] || line=${COMP_LINE:0:COMP_POINT}
    COMPREPLY=()
    while IFS= read -r word; do
        if [[ $word == : ]]; then
            compopt -o default
        else
            COMPREPLY+=("$word")
        fi
    done < <(wiresnake completion line "$line" "$COMP_WORDBREAKS" 2>/dev/null)
}
complete -F _wiresnake wiresnake
