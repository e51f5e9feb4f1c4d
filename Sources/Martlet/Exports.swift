// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

@_exported public import MartletCompiler
@_exported public import MartletCore
@_exported public import MartletFormats
@_exported public import MartletGraph
@_exported public import MartletModels
@_exported public import MartletRuntime
