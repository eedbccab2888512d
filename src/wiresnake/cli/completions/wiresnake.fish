# fish completion for wiresnake: put it into ~/.config/fish/completions/wiresnake.fish
function __wiresnake_words
    set -l line (commandline -opc)
    set -l begun (commandline -ct)
    set -a line (string unescape -- "$begun"; or echo) # As it is meant, without quotes.
    for word in (wiresnake completion words $line 2>/dev/null)
        if test "$word" = :
            __fish_complete_path (commandline -ct)
        else
            echo $word
        end
    end
end
complete -c wiresnake -f -a '(__wiresnake_words)'
