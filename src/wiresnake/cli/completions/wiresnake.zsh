#compdef wiresnake
# zsh completion for wiresnake: put it into a folder of $fpath as _wiresnake
_wiresnake() {
    local line files
    local -a found shown before
    before=("${(@Q)words[1,CURRENT-1]}")
    for line in "${(@f)$(wiresnake completion words "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        if [[ $line == : ]]; then
            files=1
        elif [[ -n $line ]]; then
            found+=("${line%%$'\t'*}")
            shown+=("${line/$'\t'/ -- }")
        fi
    done
    compadd -l -d shown -a found
    [[ -z $files ]] || _files
}
if [[ $funcstack[1] == _wiresnake ]]; then
    _wiresnake "$@"
else
    compdef _wiresnake wiresnake
fi
