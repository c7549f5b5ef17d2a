if let function = RotationFunction(argumentCount: CommandLine.arguments.count) {
    function.run()
} else {
    ProxyCommand.main()
}
