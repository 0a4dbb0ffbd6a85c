#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The same dialect on both sides: requests are patched in place, answers and
# streams go through byte for byte.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

# answers with what set() says, in pieces of "cut" bytes

my $p = AI::Provider->start(handler => sub {
    my $v = $_[0]{vars};
    my $cut = $v->{cut} || 1 << 20;

    return [ [ 'head', 200, { 'Content-Type' => $v->{type} } ],
             (map { [ 'chunk', $_ ] } unpack "(a$cut)*", $v->{answer}),
             [ 'end' ] ];
});

my $url = $p->url;
my $gw = gateway(<<"END");
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_model m      { target p/up; }
    ai_model same   { target p; }
    ai_model claude { target a/claude-x; }
    ai_model params { target p/up; params temperature=0.5 user=joe;
                      params force top_p=0.25 'stop=["a","b"]'; }
END

my $json = '{"choices":[{"index":0,"message":{"role":"assistant",'
           . '"content":"Hi"},"finish_reason":"stop"}],"object":'
           . '"chat.completion","usage":{"prompt_tokens":1,'
           . '"completion_tokens":2,"total_tokens":3}}';
my $message = '{"type":"message","role":"assistant","content":[{"type":"text",'
              . '"text":"Hi"}],"stop_reason":"end_turn","usage":'
              . '{"input_tokens":1,"output_tokens":2}}';

sub ask {
    my ($body, $answer, $type, $path) = @_;

    $p->reset;
    $p->set(answer => $answer // $json, type => $type // 'application/json');

    my $r = $gw->client->post($path // '/v1/chat/completions', $body);
    my ($req) = $p->log;

    return ($r, $req ? $req->{body} : undef);
}

# what the provider gets for what the client has sent

sub gets {
    my ($name, $sent, $expected, @more) = @_;
    my ($r, $got) = ask($sent, @more);

    is($r->{status}, 200, "$name: answered") or diag($r->{body});
    is($got, $expected, $name);
}

my $msg = '"messages":[{"role":"user","content":"x"}]';

gets('name replaced in place', qq({"model":"m",$msg}), qq({"model":"up",$msg}));
gets('name kept', qq({"model":"same",$msg}), qq({"model":"same",$msg}));
gets('name escaped', qq({"model":"p/a\\"b\\\\c",$msg}),
     qq({"model":"a\\"b\\\\c",$msg}));
gets('escaped name', qq({"model":"\\u006d",$msg}), qq({"model":"up",$msg}));

my $odd = qq(\n{ "zzz" : 1e400 ,\t"b":-0.0,"b":1E+2,$msg , "seed":)
          . qq(123456789012345678901234567890,"x":{"model":"m","y":[[],{}]},)
          . qq("\\u0061":"\\u00e9\\ud83d\\ude00\\/","c":"\xc3\xa9",\r\n)
          . qq("model"  :  "m" , "big":0.1000000000000000055 } \n );
(my $odd_up = $odd) =~ s/"model"  :  "m"/"model"  :  "up"/;
gets('order, duplicates, numbers, white space, unknown members', $odd,
     $odd_up);

gets('usage is asked of a stream', qq({"stream":true,"model":"m",$msg}),
     qq({"stream":true,"model":"up",$msg)
     . qq(,"stream_options":{"include_usage":true}}));
gets('... within empty options',
     qq({"stream":true,"stream_options":{},"model":"m",$msg}),
     qq({"stream":true,"stream_options":{"include_usage":true},)
     . qq("model":"up",$msg}));
gets('... options extended',
     qq({"stream":true,"stream_options":{ "x" : 1 },"model":"m",$msg}),
     qq({"stream":true,"stream_options":{ "x" : 1 ,"include_usage":true},)
     . qq("model":"up",$msg}));
gets('... false is replaced',
     qq({"stream":true,"stream_options":{"include_usage":false},"model":"m",)
     . qq($msg}),
     qq({"stream":true,"stream_options":{"include_usage":true},"model":"up",)
     . qq($msg}));
gets('... null is replaced',
     qq({"stream":true,"stream_options":null,"model":"m",$msg}),
     qq({"stream":true,"stream_options":{"include_usage":true},"model":"up",)
     . qq($msg}));
gets('... true is kept',
     qq({"stream":true,"stream_options":{"include_usage": true},"model":"m",)
     . qq($msg}),
     qq({"stream":true,"stream_options":{"include_usage": true},"model":"up",)
     . qq($msg}));
gets('no options without a stream',
     qq({"stream":false,"model":"m",$msg}),
     qq({"stream":false,"model":"up",$msg}));

my (undef, $got) = ask(qq({"model":"params",$msg}));
my $is = eval { JSON::PP::decode_json($got) };
is_deeply([ @$is{qw(temperature user top_p stop)} ],
          [ 0.5, 'joe', 0.25, [ 'a', 'b' ] ], 'params set');
like($got, qr/^\{"model":"up",\Q$msg\E,/, '... at the end');

gets('params: given ones kept, forced ones replaced',
     qq({"temperature": 1.50,"user":null,"top_p": 9,"stop":"z","model":)
     . qq("params",$msg}),
     qq({"temperature": 1.50,"user":null,"top_p": 0.25,"stop":["a","b"],)
     . qq("model":"up",$msg}));

# Anthropic: nothing but the name

my $am = qq({"thinking":{"type":"x"},"max_tokens":1,"model":"claude",$msg,)
         . qq("stream":true,"nobody_knows":[1.10]});
(my $am_up = $am) =~ s/"claude"/"claude-x"/;
gets('Anthropic', $am, $am_up, qq(event: message_start\ndata: {"type":)
     . qq("message_start","message":$message}\n\nevent: message_delta\n)
     . qq(data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n)
     . qq(\nevent: message_stop\ndata: {"type":"message_stop"}\n\n),
     'text/event-stream',
     '/v1/messages');

# answers

for my $answer ($json, " \r\n$json\n\n",
                '{"zz":1e999, "choices":[{"message":{"content":"\u00e9\/"},'
                . '"finish_reason":"stop", "x":1}],"a":1,"a":2}')
{
    my ($r) = ask(qq({"model":"m",$msg}), $answer);
    is($r->{status}, 200, 'status');
    is($r->{body}, $answer, 'answer byte for byte');
}

my ($r) = ask(qq({"model":"claude","max_tokens":1,$msg}), $message,
              'application/json', '/v1/messages');
is($r->{body}, $message, 'answer of Anthropic');

# streams; "#" is where the usage event comes, which nobody asked for

sub delta {
    return '{"choices":[{"index":0,"delta":{"content":"' . $_[0]
           . '"},"finish_reason":' . ($_[1] // 'null') . '}]}';
}

my $usage = '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":8,'
            . '"total_tokens":15}}';

my %streams = (
    plain => "data: " . delta('a') . "\n\ndata: " . delta('', '"stop"')
             . "\n\n#data: [DONE]\n\n",
    'comments, unknown fields and events' =>
        ": hello\n\n:\n\ndata: " . delta('a') . "\nid: 7\nretry: 10\n\n"
        . "event: strange\ndata: {\"x\": 1}\n\n: PROCESSING\n\n"
        . "data:" . delta('b', '"stop"') . "\n\n#data: [DONE]\n\n: bye\n\n",
    CRLF => "data: " . delta('a') . "\r\n\r\ndata: " . delta('b', '"stop"')
            . "\r\n\r\n#data: [DONE]\r\n\r\n",
    BOM => "\xef\xbb\xbfdata: " . delta('a') . "\n\ndata: "
           . delta("\xc3\xa9", '"stop"') . "\n\n#data: [DONE]\n\n",
    'odd space' => "data: { \"choices\" :  [{\"delta\":{\"content\":\"a\"}}]"
                   . " }\n\n\n\ndata:  " . delta('b', '"stop"')
                   . "\n\n#data: [DONE]\n\n",
    'split data' => "data: {\"choices\":\ndata: [{\"delta\":{\"content\":"
                    . "\"a\"},\"finish_reason\":\"stop\"}]}\n\n"
                    . "#data: [DONE]\n\n",
);

my $request = qq({"stream":true,"model":"m",$msg});

for my $name (sort keys %streams) {
    my $eol = $name eq 'CRLF' ? "\r\n" : "\n";
    (my $sent = $streams{$name}) =~ s/#/data: $usage$eol$eol/;
    (my $expected = $streams{$name}) =~ s/#//;

    for my $cut (0, 1, 7) {
        $p->set(cut => $cut);
        my ($r) = ask($request, $sent, 'text/event-stream');
        ok($r->{done}, "$name: whole");
        is($r->{body}, $expected, "$name, cut by $cut: the rest is as sent");
    }

    $p->set(cut => 0);

    my ($r) = ask(qq({"stream":true,"stream_options":{"include_usage":true},)
                  . qq("model":"m",$msg}), $sent, 'text/event-stream');
    is($r->{body}, $sent, "$name: asked for, so it is shown");
}

# usage within the last chunk with content must not hide it

my $mixed = 'data: {"choices":[{"index":0,"delta":{"content":"a"},'
            . '"finish_reason":"stop"}],"usage":{"prompt_tokens":1,'
            . "\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
($r) = ask($request, $mixed, 'text/event-stream');
is($r->{body}, $mixed, 'usage beside content is shown');

# hazard 3: an Anthropic stream cut at any byte; so are the ones above

my $events = join '', anthropic_stream(text => "a \xc3\xa9 b", n => 4);
my @bad;

for my $cut (1 .. 16) {
    $p->set(cut => $cut);
    my ($r) = ask(qq({"stream":true,"max_tokens":1,"model":"claude",$msg}),
                  $events, 'text/event-stream', '/v1/messages');
    push @bad, $cut if $r->{body} ne $events;
}

is("@bad", '', 'Anthropic stream, whatever the pieces');

$gw->finish;

done_testing();
