module example.com/gounixpprof

go 1.21
