# bash completion for wiresnake: source it, or put it into /etc/bash_completion.d
_wiresnake() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == : ]]; then
            compopt -o default
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <(wiresnake completion words "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
}
complete -F _wiresnake wiresnake
