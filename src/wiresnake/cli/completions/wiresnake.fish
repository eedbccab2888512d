# fish completion for wiresnake: put it into ~/.config/fish/completions/wiresnake.fish
function __wiresnake_words
    set -l line (commandline -opc)
    set -a line (commandline -ct)
    for word in (wiresnake completion words $line 2>/dev/null)
        if test "$word" = :
            __fish_complete_path (commandline -ct)
        else
            echo $word
        end
    end
end
complete -c wiresnake -f -a '(__wiresnake_words)'
